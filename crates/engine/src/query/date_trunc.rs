//! `date_trunc` for the times of the logs. DataFusion takes a time in UTC through the rules of time zones, value by value, at many times the cost of a time
//! without a zone. In UTC both are the same instant, and most batches lie within one month or year.

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

const UTC: &str = "UTC";
const WITHOUT_ZONE: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// DataFusion's function with a shorter way for columns in UTC.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DateTrunc(Arc<ScalarUDF>);

impl DateTrunc {
    pub(super) fn new() -> Self {
        Self(datafusion::functions::datetime::date_trunc())
    }

    /// The function over times without a zone.
    fn without_zone(&self, mut args: ScalarFunctionArgs, times: ColumnarValue) -> Result<ColumnarValue> {
        let plain = |field: &FieldRef| -> FieldRef { Arc::new(Field::new(field.name(), WITHOUT_ZONE, field.is_nullable())) };
        args.arg_fields[1] = plain(&args.arg_fields[1]);
        args.return_field = plain(&args.return_field);
        args.args[1] = times;
        self.0.inner().invoke_with_args(args)
    }

    fn truncated(&self, args: &ScalarFunctionArgs, times: &TimestampMicrosecondArray) -> Result<ArrayRef> {
        let all = |times: TimestampMicrosecondArray| {
            let args = ScalarFunctionArgs { number_rows: times.len(), ..args.clone() };
            let rows = times.len();
            self.without_zone(args, ColumnarValue::Array(Arc::new(times)))?.into_array(rows)
        };
        if times.null_count() == 0
            && let (Some(first), Some(last)) = (times.values().iter().min(), times.values().iter().max())
        {
            // Truncation keeps the order, so what lies between two times of one month is of that month.
            let bounds = all(TimestampMicrosecondArray::from(vec![*first, *last]))?;
            let bounds = bounds.as_primitive::<TimestampMicrosecondType>();
            if bounds.value(0) == bounds.value(1) {
                return Ok(Arc::new(TimestampMicrosecondArray::from_value(bounds.value(0), times.len())));
            }
        }
        all(times.clone().with_timezone_opt(None::<Arc<str>>))
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(ColumnarValue::Array(times)) = args.args.get(1) else { return self.0.inner().invoke_with_args(args) };
        let DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) = times.data_type() else {
            return self.0.inner().invoke_with_args(args);
        };
        if zone.as_ref() != UTC {
            return self.0.inner().invoke_with_args(args);
        }
        let truncated = self.truncated(&args, times.as_primitive())?;
        let truncated = truncated.as_primitive::<TimestampMicrosecondType>().clone().with_timezone(UTC);
        Ok(ColumnarValue::Array(Arc::new(truncated)))
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.0.output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use datafusion::common::ScalarValue;

    fn invoke(function: &dyn ScalarUDFImpl, unit: &str, times: &TimestampMicrosecondArray) -> Result<ArrayRef> {
        let unit = ScalarValue::from(unit);
        let fields = [Field::new("unit", DataType::Utf8, false), Field::new("time", times.data_type().clone(), true)].map(Arc::new);
        let scalars = [Some(&unit), None];
        let return_field = function.return_field_from_args(ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars })?;
        let args = ScalarFunctionArgs {
            args: vec![ColumnarValue::Scalar(unit.clone()), ColumnarValue::Array(Arc::new(times.clone()))],
            arg_fields: fields.to_vec(),
            number_rows: times.len(),
            return_field: return_field.clone(),
            config_options: Arc::default(),
        };
        let array = function.invoke_with_args(args)?.into_array(times.len())?;
        assert_eq!(array.data_type(), return_field.data_type());
        Ok(array)
    }

    #[test]
    fn truncates_as_datafusion_does() {
        let day = 86_400_000_000;
        let batches = [
            vec![],
            vec![None],
            vec![Some(0)],
            vec![Some(20_000 * day), Some(20_000 * day + 1), Some(20_000 * day + 17)],
            vec![Some(20_000 * day + 5), None, Some(20_001 * day - 1)],
            (-40_000..40_000).step_by(13).map(|at| Some(at * day + at)).collect(),
            vec![Some(-1), Some(0), Some(1)],
            vec![Some(i64::MAX)],
            vec![Some(-9_300_000_000_000_000), Some(0)],
        ];
        let (ours, theirs) = (DateTrunc::new(), datafusion::functions::datetime::date_trunc());
        let units = ["microsecond", "millisecond", "second", "minute", "hour", "day", "week", "MONTH", "quarter", "year", "century"];
        for unit in units {
            for zone in [None, Some("UTC"), Some("Europe/Berlin")] {
                for batch in &batches {
                    let times = TimestampMicrosecondArray::from(batch.clone()).with_timezone_opt(zone);
                    let case = format!("{unit}, {zone:?}, {:?}", batch.first());
                    // Hours and days in UTC are also right where DataFusion runs out of nanoseconds.
                    if let Ok(theirs) = invoke(theirs.inner().as_ref(), unit, &times) {
                        assert_eq!(&invoke(&ours, unit, &times).unwrap(), &theirs, "{case}");
                    }
                }
            }
        }
    }
}
