"""How hosts are reached: SSH (paramiko, nowhere else), and a fake for tests."""
