"""``python -m melnet`` is the command ``melnet``, also where the package is not installed."""

from melnet.command_line import main

if __name__ == "__main__":
    main()
