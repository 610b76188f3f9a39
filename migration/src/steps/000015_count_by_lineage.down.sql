-- What was counted stays where it is: with the first key of each lineage.
SELECT 1;
