"""Virtual time: the same programs inside user-mode Linux, on a clock that no busy machine can disturb."""
