"""Run the command line with `python -m jaxdqn`."""

from jaxdqn.cli.main import main

if __name__ == "__main__":
    main()
