import java.util.function.Supplier;
import org.hibernate.Session;
import org.hibernate.Transaction;

/** Hibernate: begins a transaction whose changes are those of the current user. */
public final class HibernateContext {
    private final Supplier<String> context;

    /** {@code context} gives the JSON object for the current request. */
    public HibernateContext(Supplier<String> context) {
        this.context = context;
    }

    public Transaction begin(Session session) {
        Transaction transaction = session.beginTransaction();
        try {
            session.doWork(connection -> Jdbc.context(connection, context.get()));
            return transaction;
        } catch (RuntimeException failed) {
            transaction.rollback();
            throw failed;
        }
    }
}
