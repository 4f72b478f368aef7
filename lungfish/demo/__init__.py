"""``lungfish demo``: a year of flights, a million signals, one crash, and not one signal lost or doubled.

``flights`` reads the table and adds it up directly. ``app`` is the Lungfish app, ``sending`` the Ray actors
that send the signals, ``watching`` what is seen from outside. ``stage`` is what it all runs on, ``tour``
what happens there, ``screen`` what is printed, and ``run`` puts it together.
"""
