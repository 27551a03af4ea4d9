-- Measurements of one metric by unit and bucket. A measurement that stands for several happenings (sampling_rate below 1) has their weight; one of rate 0 stands for
-- itself. $1 metric, $2 bucket in µs, $3 and $4 the period, $5 category, $6 component, $7 operation (null: all).
WITH measured AS (
    SELECT
        metric_unit,
        CAST(measured_at AS BIGINT) / $2 * $2 AS bucket,
        CAST(metric_value AS DOUBLE) AS value,
        CASE WHEN sampling_rate > 0 THEN 1.0 / CAST(sampling_rate AS DOUBLE) ELSE 1.0 END AS weight,
        is_threshold_exceeded
    FROM system_performance_log
    WHERE metric_name = $1
      AND metric_value IS NOT NULL
      AND measured_at >= $3
      AND measured_at < $4
      AND ($5 IS NULL OR metric_category = $5)
      AND ($6 IS NULL OR component_name = $6)
      AND ($7 IS NULL OR operation_name = $7)
)
SELECT
    metric_unit AS unit,
    bucket,
    count(*) AS measurements,
    sum(weight) AS happenings,
    sum(value * weight) / sum(weight) AS average,
    min(value) AS smallest,
    max(value) AS largest,
    approx_percentile_cont_with_weight(weight, 0.5) WITHIN GROUP (ORDER BY value) AS p50,
    approx_percentile_cont_with_weight(weight, 0.95) WITHIN GROUP (ORDER BY value) AS p95,
    approx_percentile_cont_with_weight(weight, 0.99) WITHIN GROUP (ORDER BY value) AS p99,
    sum(CASE WHEN is_threshold_exceeded THEN 1 ELSE 0 END) AS exceeded
FROM measured
GROUP BY 1, 2
ORDER BY 1, 2
