"""The training loops, as generators: with environments on the host, or with everything on the device."""
