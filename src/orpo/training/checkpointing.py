"""placeholder, written once the runs room stands"""
