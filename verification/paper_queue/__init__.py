"""Every run of the papers' tables as data, what each costs here, and a queue that does them one by one or side by side.

`runs` says what there is to run, `cost` measures it, `work` does one run and stores it, `queue` does them all.
"""
