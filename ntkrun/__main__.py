"""``python -m ntkrun``."""

from ntkrun.cli import main

if __name__ == "__main__":
    main()
