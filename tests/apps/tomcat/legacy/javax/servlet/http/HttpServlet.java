// As much of the old API as the compiler wants; it is not packed.
package javax.servlet.http;

public abstract class HttpServlet {}
