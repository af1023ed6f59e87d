"""The training loops, as generators: environments on the host, or all on the device."""
