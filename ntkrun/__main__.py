"""``python -m ntkrun``."""

from ntkrun.cli.main import main

if __name__ == "__main__":
    main()
