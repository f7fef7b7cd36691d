"""``python -m sifrc``: the same as the command ``sifrc``."""

from sifrc.cli.main import main

if __name__ == "__main__":
    main()
