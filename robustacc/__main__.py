"""`python -m robustacc`: the command of `robustacc.cli`"""
from .cli import main

if __name__ == "__main__": main()
