"""`python -m samdeploy`."""

from samdeploy.cli import main

main()
