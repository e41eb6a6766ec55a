"""The door of a checkout: ``python cli.py ...`` is the installed ``lcm-data ...``."""

from lcm_data.cli import main

main()
