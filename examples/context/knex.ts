// knex: a transaction that says who acts first.
import type { Knex } from "knex";

export function transactionAs<T>(knex: Knex, context: Record<string, unknown>, work: (trx: Knex.Transaction) => Promise<T>): Promise<T> {
  return knex.transaction(async (trx) => {
    await trx.raw("SELECT muniment.context(?::jsonb)", [JSON.stringify(context)]);
    return work(trx);
  });
}
