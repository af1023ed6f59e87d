"""`python -m jaxdqn` is the command line."""

from jaxdqn.cli.main import main

if __name__ == "__main__":
    main()
