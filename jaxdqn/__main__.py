"""`python -m jaxdqn` is the command line."""

from jaxdqn.cli import main

if __name__ == "__main__":
    main()
