import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;

/** JDBC: call it after setAutoCommit(false), before the first write of the transaction. */
public final class Jdbc {
    private Jdbc() {}

    /** Says who makes the changes of this transaction; {@code context} is a JSON object. */
    public static void context(Connection connection, String context) throws SQLException {
        if (connection.getAutoCommit()) {
            throw new IllegalStateException("a context holds for one transaction: call setAutoCommit(false) first");
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT muniment.context(?::jsonb)")) {
            statement.setString(1, context);
            statement.execute();
        }
    }
}
