"""The routes, in rooms by what they are about; each module makes a router from the shared context."""
