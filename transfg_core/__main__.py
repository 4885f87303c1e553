"""`python -m transfg_core`: the command `transfg` where nothing has been installed as a script."""

from transfg_core.entry import main

if __name__ == "__main__":
    main()
