"""The routes, one module for each subject. Each module makes a router from the shared dependencies."""
