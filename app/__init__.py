"""The programs: web, worker and command line, and the wiring of their parts."""
