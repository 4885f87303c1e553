"""`python -m transfg`: the command `transfg` where no script has been installed."""

from transfg.main import main

if __name__ == "__main__":
    main()
