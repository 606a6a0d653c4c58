"""`python -m samdeploy.cli`."""

from samdeploy.cli import main

main()
