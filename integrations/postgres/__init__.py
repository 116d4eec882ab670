"""PostgreSQL without an installation: the server of the wheel, with TimescaleDB where it can be had."""
