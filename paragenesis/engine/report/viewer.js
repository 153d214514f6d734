// A small crystal viewer on a plain canvas: drag turns, buttons (or ctrl + wheel, or a pinch) zoom.
class CrystalViewer {
  // `elements`: by atomic number, {symbol, colour: [r, g, b], radius: covalent radius in angstrom}.
  constructor(box, elements) {
    this.canvas = box.querySelector("canvas");
    this.legend = box.querySelector(".legend");
    this.elements = elements;
    this.repeat = 1;
    this.zoom = 1;
    this.view = null;
    this.scene = null;
    this.listen(box);
  }

  static cellInWords(crystal) {
    const rows = CrystalViewer.rows(crystal.lattice);
    const length = rows.map((v) => Math.hypot(...v));
    const angle = (i, j) => {
      const dot = rows[i].reduce((sum, x, k) => sum + x * rows[j][k], 0);
      return ((Math.acos(dot / (length[i] * length[j])) * 180) / Math.PI).toFixed(1) + "°";
    };
    const lengths = length.map((x) => x.toFixed(3)).join(", ") + " Å";
    return `${lengths}; ${angle(1, 2)}, ${angle(0, 2)}, ${angle(0, 1)}; ${crystal.numbers.length} atoms`;
  }

  static rows(flat) {
    return [flat.slice(0, 3), flat.slice(3, 6), flat.slice(6, 9)];
  }

  static place(frac, rows) {
    return [0, 1, 2].map((k) => frac[0] * rows[0][k] + frac[1] * rows[1][k] + frac[2] * rows[2][k]);
  }

  // Shows a crystal and returns how many atoms are drawn, images on the cell's faces included.
  show(crystal) {
    this.crystal = crystal;
    this.zoom = 1;
    this.build();
    this.lookAlong([1, 0.32, 0.24]);
    this.writeLegend();
    return this.scene.atoms.length;
  }

  clear() {
    this.crystal = this.scene = null;
    this.legend.replaceChildren();
    this.draw();
    return 0;
  }

  build() {
    const rows = CrystalViewer.rows(this.crystal.lattice);
    const n = this.repeat;
    const base = this.crystal.numbers.map((z, i) => ({
      z,
      frac: this.crystal.frac.slice(3 * i, 3 * i + 3).map((x) => {
        const inside = x - Math.floor(x);
        return inside > 1 - 1e-3 ? 0 : inside;
      }),
    }));
    const near = this.nearestDistances(base, rows);
    const middle = CrystalViewer.place([n / 2, n / 2, n / 2], rows);
    const centred = (frac) => CrystalViewer.place(frac, rows).map((x, k) => x - middle[k]);
    const atoms = [];
    base.forEach((atom, i) => {
      const shifts = atom.frac.map((x) => Array.from({ length: n + (x < 1e-3 ? 1 : 0) }, (_, s) => s));
      for (const a of shifts[0]) for (const b of shifts[1]) for (const c of shifts[2]) {
        atoms.push({ z: atom.z, near: near[i], at: centred([atom.frac[0] + a, atom.frac[1] + b, atom.frac[2] + c]) });
      }
    });
    const corner = (bits) => centred(bits.map((bit) => bit * n));
    const edges = [];
    for (let axis = 0; axis < 3; axis++) for (const u of [0, 1]) for (const v of [0, 1]) {
      const from = [0, 0, 0], to = [0, 0, 0];
      from[(axis + 1) % 3] = to[(axis + 1) % 3] = u;
      from[(axis + 2) % 3] = to[(axis + 2) % 3] = v;
      to[axis] = 1;
      edges.push([corner(from), corner(to)]);
    }
    const reach = Math.max(...edges.flat().map((p) => Math.hypot(...p)), ...atoms.map((a) => Math.hypot(...a.at)));
    this.scene = { atoms, edges, bonds: this.bonds(atoms), rows, reach: reach + 1 };
  }

  // Distance from each atom of the cell to its nearest neighbour, periodic images included.
  nearestDistances(base, rows) {
    return base.map((one) => {
      let least = Infinity;
      for (const other of base) {
        for (let a = -1; a <= 1; a++) for (let b = -1; b <= 1; b++) for (let c = -1; c <= 1; c++) {
          const shift = [a, b, c];
          const d = Math.hypot(...CrystalViewer.place(other.frac.map((x, k) => x - one.frac[k] + shift[k]), rows));
          if (d > 0.1 && d < least) least = d;
        }
      }
      return least;
    });
  }

  // Bonded: within covalent radii + 0.45 A, and no farther than 1.25 times either atom's nearest neighbour, so
  // that polyhedra show and large cations do not bond to everything around them.
  bonds(atoms) {
    const out = [];
    for (let i = 0; i < atoms.length; i++) {
      for (let j = 0; j < i; j++) {
        const p = atoms[i], q = atoms[j];
        const d = Math.hypot(p.at[0] - q.at[0], p.at[1] - q.at[1], p.at[2] - q.at[2]);
        const radii = this.elements[p.z].radius + this.elements[q.z].radius + 0.45;
        if (d > 0.1 && d < Math.min(radii, 1.25 * Math.min(p.near, q.near))) out.push([p, q]);
      }
    }
    return out;
  }

  // Turns the crystal so that a direction, in lattice coordinates, points at the eye.
  lookAlong(direction) {
    const unit = (v) => v.map((x) => x / Math.hypot(...v));
    const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const { rows } = this.scene;
    const toEye = unit(CrystalViewer.place(direction, rows));
    const wanted = Math.abs(direction[2]) > Math.abs(direction[0]) + Math.abs(direction[1]) ? rows[1] : rows[2];
    const right = unit(cross(wanted, toEye));
    this.view = [right, cross(toEye, right), toEye];
    this.draw();
  }

  turn(dx, dy) {
    const spin = (u, v, angle) => {
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      return [u.map((x, k) => c * x - s * v[k]), u.map((x, k) => s * x + c * v[k])];
    };
    let [right, up, eye] = this.view;
    [right, eye] = spin(right, eye, -dx * 0.01);
    [up, eye] = spin(up, eye, dy * 0.01);
    this.view = [right, up, eye];
    this.draw();
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!this.scene) return;
    const scale = (0.46 * Math.min(width, height) * this.zoom) / this.scene.reach;
    const seen = (p) => {
      const [x, y, z] = this.view.map((v) => v[0] * p[0] + v[1] * p[1] + v[2] * p[2]);
      return { x: width / 2 + x * scale, y: height / 2 - y * scale, z };
    };
    this.paint(pen, seen, scale);
    this.compass(pen, height);
  }

  // Everything from back to front; edges in short pieces, bonds in halves, so that nearer atoms cover them.
  paint(pen, seen, scale) {
    const things = [];
    const mix = (p, q, t) => p.map((x, k) => x + (q[k] - x) * t);
    const line = (p, q, colour, thickness) => {
      const [a, b] = [seen(p), seen(q)];
      things.push({ z: (a.z + b.z) / 2, draw: () => this.stroke(pen, a, b, colour, thickness) });
    };
    for (const [p, q] of this.scene.edges) {
      for (let k = 0; k < 10; k++) line(mix(p, q, k / 10), mix(p, q, (k + 1) / 10), "#9aa5b1", 1.2);
    }
    for (const [p, q] of this.scene.bonds) {
      const middle = mix(p.at, q.at, 0.5);
      line(p.at, middle, this.shade(p.z, 0.85), Math.max(0.16 * scale, 2));
      line(middle, q.at, this.shade(q.z, 0.85), Math.max(0.16 * scale, 2));
    }
    for (const atom of this.scene.atoms) {
      const a = seen(atom.at);
      things.push({ z: a.z, draw: () => this.ball(pen, a, 0.38 * this.elements[atom.z].radius * scale, atom.z) });
    }
    things.sort((p, q) => p.z - q.z).forEach((thing) => thing.draw());
  }

  stroke(pen, a, b, colour, thickness) {
    pen.beginPath();
    pen.moveTo(a.x, a.y);
    pen.lineTo(b.x, b.y);
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    pen.lineCap = "round";
    pen.stroke();
  }

  ball(pen, at, radius, z) {
    const light = pen.createRadialGradient(at.x - 0.35 * radius, at.y - 0.4 * radius, 0.1 * radius, at.x, at.y, radius);
    light.addColorStop(0, this.shade(z, 1.7));
    light.addColorStop(0.45, this.shade(z, 1));
    light.addColorStop(1, this.shade(z, 0.62));
    pen.beginPath();
    pen.arc(at.x, at.y, radius, 0, 2 * Math.PI);
    pen.fillStyle = light;
    pen.fill();
    pen.strokeStyle = this.shade(z, 0.45);
    pen.lineWidth = 0.8;
    pen.stroke();
  }

  // An element's colour, darker below 1, towards white above.
  shade(z, factor) {
    const change = (c) => Math.round(factor <= 1 ? c * factor : 255 - (255 - c) / (1 + 3 * (factor - 1)));
    return `rgb(${this.elements[z].colour.map(change).join(",")})`;
  }

  compass(pen, height) {
    const [x, y] = [46, height - 46];
    this.scene.rows.forEach((row, k) => {
      const length = Math.hypot(...row);
      const [u, v] = this.view.map((axis) => axis.reduce((sum, c, i) => sum + (c * row[i]) / length, 0));
      const colour = ["#b3261e", "#1b7f3b", "#1f5fbf"][k];
      this.stroke(pen, { x, y }, { x: x + 26 * u, y: y - 26 * v }, colour, 2);
      pen.fillStyle = colour;
      pen.font = "600 13px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText("abc"[k], x + 36 * u, y - 36 * v);
    });
  }

  writeLegend() {
    const counts = new Map();
    this.crystal.numbers.forEach((z) => counts.set(z, (counts.get(z) || 0) + 1));
    this.legend.replaceChildren(...Array.from(counts, ([z, count]) => {
      const entry = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = this.shade(z, 1);
      entry.append(dot, `${this.elements[z].symbol} × ${count}`);
      return entry;
    }));
  }

  listen(box) {
    const fingers = new Map();
    const apart = () => {
      const [p, q] = [...fingers.values()];
      return Math.hypot(p.x - q.x, p.y - q.y);
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last || !this.scene) return;
      const before = fingers.size === 2 ? apart() : 0;
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (before) this.closer(apart() / before);
      else if (fingers.size === 1) this.turn(event.clientX - last.x, event.clientY - last.y);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;  // a plain wheel scrolls the page
      event.preventDefault();
      this.closer(Math.exp(-event.deltaY * 0.003));
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-12, 0], ArrowRight: [12, 0], ArrowUp: [0, -12], ArrowDown: [0, 12] }[event.key];
      if (!step || !this.scene) return;
      event.preventDefault();
      this.turn(...step);
    });
    box.querySelectorAll("[data-zoom]").forEach((button) => {
      button.addEventListener("click", () => this.closer(Number(button.dataset.zoom)));
    });
    box.querySelectorAll("[data-view]").forEach((button) => {
      const axis = { a: [1, 0, 0], b: [0, 1, 0], c: [0, 0, 1] }[button.dataset.view];
      button.addEventListener("click", () => this.scene && this.lookAlong(axis));
    });
    const repeat = box.querySelector("#viewer-repeat");
    repeat.addEventListener("click", () => {
      this.repeat = 3 - this.repeat;
      repeat.setAttribute("aria-pressed", String(this.repeat === 2));
      if (!this.scene) return;
      this.build();
      this.draw();
    });
    window.addEventListener("resize", () => this.draw());
  }

  closer(factor) {
    this.zoom = Math.min(Math.max(this.zoom * factor, 0.4), 8);
    this.draw();
  }
}
