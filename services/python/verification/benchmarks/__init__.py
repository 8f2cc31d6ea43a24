"""Programs that measure the server, a folder for each subject. They save their results as docs/figures/*.json."""
