"""`python -m paragenesis` is the command line."""

from paragenesis.cli import main

if __name__ == "__main__":
    main()
