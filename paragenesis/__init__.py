"""Paragenesis: the engine that decides which crystal to make next."""
