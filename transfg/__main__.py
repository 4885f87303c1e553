"""`python -m transfg`: the command `transfg` without an installed script."""

from transfg.main import main

if __name__ == "__main__":
    main()
