"""Bring a bundle to devices over OpenSSH, switch to it in one step, measure it there.

`destination` says where to, `payload` what is sent, `device` speaks with one device (`device.sh`
is what runs there), `steps` are the things to be done on one device, `many` does them on several
at once, `home` brings figures into report.json. docs/deploy.md is the user's side of it.
"""
