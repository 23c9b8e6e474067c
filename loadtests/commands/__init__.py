"""The commands of `chatlab`: each module has `add_arguments(parser)` and `main(arguments)`; imported when used."""
