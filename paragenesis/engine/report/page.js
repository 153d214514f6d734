// The page itself: draws the figures, sorts the table, and hands the chosen crystal to the viewer.
(function () {
  "use strict";

  const CONFIG = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,  // a finger cannot hover
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg" },
  };

  function drawFigures() {
    const drawn = Array.from(document.querySelectorAll("script.figure-data"), (data) => {
      const figure = JSON.parse(data.textContent);
      const box = document.getElementById(data.dataset.for);
      return Plotly.newPlot(box, figure.data, figure.layout, CONFIG).then(() => true, (error) => {
        box.textContent = "This figure could not be drawn: " + error.message;
        return false;
      });
    });
    return Promise.all(drawn).then((done) => done.filter(Boolean).length);
  }

  function compare(a, b) {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  }

  // Headings in the order of the body's columns: a grouped heading stands for the two below it.
  function columnsOf(table) {
    const [top, below] = table.tHead.rows;
    const inner = Array.from(below.cells);
    return Array.from(top.cells).flatMap((th) => (th.colSpan > 1 ? inner.splice(0, th.colSpan) : [th]));
  }

  function makeSortable(table) {
    const columns = columnsOf(table);
    columns.forEach((th, index) => {
      if (!("sort" in th.dataset)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes);
      th.append(button);
      button.addEventListener("click", () => {
        const down = th.getAttribute("aria-sort") === "ascending";
        columns.forEach((other) => other.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (entry) => entry.rows[0].cells[index].dataset.value;
        const entries = Array.from(table.tBodies);
        entries.sort((p, q) => {
          const a = value(p), b = value(q);
          if (a === "" || b === "") return (a === "") - (b === "");  // what is unknown stays last
          return down ? compare(b, a) : compare(a, b);
        });
        table.append(...entries);
      });
    });
  }

  function fact(list, name, words) {
    if (!words) return;
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = words;
    list.append(dt, dd);
  }

  // `entry` is the table body of one crystal: a row of numbers and a row that says why.
  function showEntry(entry, viewer, crystals) {
    entry.parentNode.querySelectorAll(".chosen").forEach((other) => other.classList.remove("chosen"));
    entry.classList.add("chosen");
    const crystal = crystals[entry.dataset.id];
    const title = document.getElementById("viewer-title");
    title.replaceChildren(...entry.querySelector("b").cloneNode(true).childNodes, " · " + entry.rows[0].cells[1].textContent);
    const facts = document.getElementById("viewer-facts");
    facts.replaceChildren();
    fact(facts, "why", entry.dataset.why);
    fact(facts, "made from", entry.dataset.origin);
    fact(facts, "problem", entry.dataset.error);
    if (crystal) {
      fact(facts, "cell", CrystalViewer.cellInWords(crystal));
      fact(facts, "relaxed by", "the " + entry.dataset.by);
    }
    fact(facts, "id", entry.dataset.id);
    const cif = document.getElementById("viewer-cif");
    cif.hidden = !entry.dataset.cif;
    cif.href = entry.dataset.cif || "";
    cif.download = entry.dataset.file || "";
    document.body.dataset.atoms = crystal ? viewer.show(crystal) : viewer.clear();
  }

  function startViewer(table) {
    const data = JSON.parse(document.getElementById("viewer-data").textContent);
    const viewer = new CrystalViewer(document.getElementById("viewer"), data.elements);
    const entries = Array.from(table.tBodies);
    entries.forEach((entry) => {
      entry.addEventListener("click", () => showEntry(entry, viewer, data.crystals));
      entry.addEventListener("keydown", (event) => {
        if (event.key === "Enter") showEntry(entry, viewer, data.crystals);
      });
    });
    showEntry(entries.find((entry) => entry.dataset.cif) || entries[0], viewer, data.crystals);
  }

  const table = document.getElementById("selected");
  if (table) {
    makeSortable(table);
    startViewer(table);
  }
  drawFigures().then((n) => {
    document.body.dataset.rendered = n + (n === 1 ? " figure" : " figures");
  });
  const refit = () => document.querySelectorAll(".plot.js-plotly-plot").forEach((box) => Plotly.Plots.resize(box));
  window.addEventListener("beforeprint", refit);
  window.addEventListener("afterprint", refit);
})();
