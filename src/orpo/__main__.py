"""`python -m orpo`: the command, for torchrun and for machines where scripts are not on the PATH."""

from orpo.cli.main import main

main()
