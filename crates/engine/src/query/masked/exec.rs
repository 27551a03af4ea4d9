//! The operator that puts masks where values would be. Below it, the masked columns are not read. Nothing of the query above reaches through it: it declares
//! no statistics and no order, and takes no filter, limit, sorting or projection to hand down.

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, StringViewArray};
use arrow_schema::{DataType, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;
use muniment_access::FieldMasks;
use std::fmt;
use std::sync::Arc;

/// Where a column of the output comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// The input's column at this position.
    Input(usize),
    /// The mask.
    Mask(ScalarValue),
    /// The input's documents at this position, with some fields masked.
    Partly(usize, Arc<FieldMasks>),
}

#[derive(Debug)]
pub(super) struct MaskExec {
    input: Arc<dyn ExecutionPlan>,
    sources: Arc<[Source]>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl MaskExec {
    /// `sources` has one entry for each column of `schema`.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, sources: Arc<[Source]>, schema: SchemaRef) -> Self {
        let partitions = Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let known = EquivalenceProperties::new(schema.clone());
        let properties = PlanProperties::new(known, partitions, input.pipeline_behavior(), input.boundedness());
        Self { input, sources, schema, properties: Arc::new(properties) }
    }
}

fn masked(batch: &RecordBatch, sources: &[Source], schema: &SchemaRef) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = sources.iter().map(|source| match source {
        Source::Input(at) => Ok(batch.column(*at).clone()),
        Source::Mask(value) => value.to_array_of_size(rows),
        Source::Partly(at, fields) => partly_masked(batch.column(*at), fields),
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn partly_masked(documents: &ArrayRef, fields: &FieldMasks) -> Result<ArrayRef> {
    match documents.data_type() {
        DataType::Utf8View => {
            let shown = documents.as_string_view().iter().map(|document| document.map(|document| fields.apply(document)));
            Ok(Arc::new(shown.collect::<StringViewArray>()))
        }
        DataType::Utf8 => {
            let shown = documents.as_string::<i32>().iter().map(|document| document.map(|document| fields.apply(document)));
            Ok(Arc::new(shown.collect::<StringArray>()))
        }
        other => Err(DataFusionError::Internal(format!("documents as {other}"))),
    }
}

impl DisplayAs for MaskExec {
    fn fmt_as(&self, _form: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.schema.fields().iter().zip(self.sources.iter()).filter(|(_, source)| !matches!(source, Source::Input(_)));
        let names: Vec<&str> = hidden.map(|(field, _)| field.name().as_str()).collect();
        write!(formatter, "MaskExec: masked=[{}]", names.join(", "))
    }
}

impl ExecutionPlan for MaskExec {
    fn name(&self) -> &str {
        "MaskExec"
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(&self, _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("a mask without an input".to_owned()))?;
        Ok(Arc::new(Self::new(input, self.sources.clone(), self.schema.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (sources, schema) = (self.sources.clone(), self.schema.clone());
        let stream = self.input.execute(partition, context)?.map(move |batch| masked(&batch?, &sources, &schema));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)))
    }
}
