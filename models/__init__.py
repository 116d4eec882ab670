"""Tables by domain, who may see their rows, and the migrations. Imports only core."""
