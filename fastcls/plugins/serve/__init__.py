"""A local page where pictures are dropped and the network of a run says what it sees, and why."""

from fastcls.machine import extras

extras.require("fastcls serve", "serve")
