"""Names within a study's directory, apart from those of the files that one module reads and writes alone."""

STUDENTS = "students"
TEACHER = "teacher"  # the directory's name, and the teacher's name in the logs
ANGLES = "angles"
ENVIRONMENT_FILE = "environment.json"
