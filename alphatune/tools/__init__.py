"""The commands: one file each, besides run, search and data, which stand in rooms of their own.

Know arguments and messages. The work is done in the rooms above; nothing else imports them.
"""
