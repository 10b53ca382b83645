"""`python -m benchmarks.study COMMAND`."""

if __name__ == "__main__":
    from benchmarks.study.commands import app

    app()
