"""Shards, commits, plans and locks: written whole or not at all, on local disks and object stores alike."""
