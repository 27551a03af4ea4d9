// Prisma: an interactive transaction that says who acts first. With the generator "prisma-client", import from its output folder.
import { Prisma, PrismaClient } from "@prisma/client";

export type AuditContext = { user_id?: number; user_name?: string; session_id?: string; ip_address?: string; change_reason?: string };

export function transactionAs<T>(prisma: PrismaClient, context: AuditContext, work: (tx: Prisma.TransactionClient) => Promise<T>): Promise<T> {
  return prisma.$transaction(async (tx) => {
    await tx.$executeRaw`SELECT muniment.context(${JSON.stringify(context)}::jsonb)`;
    return work(tx);
  });
}
