"""The `samdeploy` command, and `python -m samdeploy`."""

import signal


def main() -> None:
    """Load the command line, and run it."""
    # Ctrl-C while the modules are loaded, 0.2 s, would be a traceback; a signal that a parent ignores stays ignored.
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from samdeploy.cli import main as command_line

    if is_usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
