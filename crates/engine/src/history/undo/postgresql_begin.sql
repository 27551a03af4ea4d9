BEGIN;
SET LOCAL standard_conforming_strings = on;
