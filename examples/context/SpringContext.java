import java.sql.Connection;
import java.sql.SQLException;
import java.util.function.Supplier;
import javax.sql.DataSource;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.transaction.TransactionDefinition;

/**
 * Spring: the changes of each transaction are those of the current user. It takes the place of DataSourceTransactionManager. A transaction that can't say who acts fails
 * before it changes anything.
 */
public class SpringContext extends DataSourceTransactionManager {
    private final transient Supplier<String> context;

    /** {@code context} gives the JSON object for the current request, or null if nobody acts. */
    public SpringContext(DataSource source, Supplier<String> context) {
        super(source);
        this.context = context;
    }

    @Override
    protected void prepareTransactionalConnection(Connection connection, TransactionDefinition definition) throws SQLException {
        super.prepareTransactionalConnection(connection, definition);
        String said = definition.isReadOnly() ? null : context.get();
        if (said != null) {
            Jdbc.context(connection, said);
        }
    }
}
