"""`python -m bench`: the command line is `bench.cli`.

Nothing is imported at the top, since every worker process imports this module once more.
"""

if __name__ == "__main__":
    from bench.machine import stopping

    stopping.install()

    from bench.cli import main

    main()
