"""Who somebody is: accounts, passwords, sign-in, access tokens, and what becomes of them while they are in use."""
